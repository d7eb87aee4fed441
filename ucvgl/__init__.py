"""ucvgl: where was this picture taken? Three papers on cross-view geo-localisation, step by step."""

__version__ = "0.1.0"
