"""How the preview model was made: scenes, training, export, measurements. Not used at run time."""
