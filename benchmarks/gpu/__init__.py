"""Checks and measurements on one CUDA GPU: `python -m benchmarks.gpu --out DIR`.

The machine needs Python 3.12, torch, transformers and peft; `make gpu-wheels` downloads the rest.
No network, no model hub: weights and data are random. docs/gpu.md says what each section checks.

`__main__` is the command line, `runner` starts the process `child`, which runs the sections of
`sections`, and writes what they yield (`results`). `bench` is what every section gets.
"""
