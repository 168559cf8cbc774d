"""One dataclass for each section of the configuration; `r1ray.config.schema` joins them."""
