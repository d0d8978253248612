"""One edit from mask to pasted picture; knows no ComfyUI."""
