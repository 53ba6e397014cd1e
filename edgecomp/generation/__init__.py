"""Text from an exported language model, on ONNX Runtime: neither PyTorch nor transformers is needed.

`folder` reads what `edgecomp export` wrote, `session` runs it with its cache, `sampling` chooses tokens, `text` makes tokens
of text and whole characters of tokens, `chat` renders messages, `prefix` keeps a computed beginning, `writing` puts them together;
`on_device` has the measuring program on a device do what `session` and `writing` do here.
"""
