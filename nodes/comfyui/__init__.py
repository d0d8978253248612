"""All that imports comfy_api, folder_paths or server: nodes, progress, model folders, routes."""
