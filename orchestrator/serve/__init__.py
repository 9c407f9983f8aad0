"""`plw serve`: an OpenAI-compatible fine-tuning API with `prompt_loss_weight`.

`serve(config, data, host, port)` in `app` runs the server. Each job is a folder with its own
process (`worker`), which the server starts and watches (`runner`). The server's process is the only
writer of the database (`store`); a worker writes only files in its job's folder, so either may be
killed at any time. Only the command line may import from here.
"""
