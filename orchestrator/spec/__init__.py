"""Sweep specs: models of the settings, rules between settings, presets, JSON Schema.

`load_spec` in `sweep_spec` reads and checks a YAML file; `init` writes presets and the schema;
`python -m orchestrator.spec.reference` prints docs/spec.md.

Every package of orchestrator except `foundation` may import from here.
"""
