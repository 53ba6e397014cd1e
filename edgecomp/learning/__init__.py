"""Learning of a draft's factors by gradients: what is learned of a format, the module that runs a draft, objectives, the loop."""
