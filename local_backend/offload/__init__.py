"""How a model fits the card: what is loaded when, streamed, evicted; ComfyUI's bookkeeping."""
