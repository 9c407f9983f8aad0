"""Submit sweeps from a laptop to a Ray cluster.

`build_package` collects the code and the files of a spec, `open_jobs` connects to a cluster, and
`Jobs.submit_sweep` and `Jobs.follow` run the sweep there. Only the command line may import from
here.
"""
