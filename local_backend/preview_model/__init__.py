"""The small preview model: a diffusers FluxFillPipeline folder, and the package that trained it."""
