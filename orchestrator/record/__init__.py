"""Read and write the record of a sweep on disk, which all later stages use.

The main calls are `folder.SweepFolder(root)`, for every path and record, and
`folder.check_records(folder)`. Every package after spec may import from here.
"""
