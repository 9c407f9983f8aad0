"""Use a sweep's best setting: train a final model, or export it to another framework.

`load_setting` returns the config of a sweep's best setting or of a spec; `load_recipe` and
`export_recipe` convert it to files for TRL, axolotl or ms-swift. Only the command line may import
from here.
"""
