"""Masks, regions, crops, seams and stitching: tensors only, no ComfyUI, no network, no model."""
