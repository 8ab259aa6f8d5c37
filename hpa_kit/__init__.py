"""Where in each single cell a protein sits: the kit for *HPA – Single Cell Classification*."""

__version__ = "0.1.0"
