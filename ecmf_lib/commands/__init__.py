"""The commands of ``ecmf``, by what they are for. Each calls what the notebooks call, and imports it when it is run."""
