"""From a spec to trials with their ids, sources and costs. Starts nothing."""
