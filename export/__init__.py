"""How an LTX-Video checkpoint becomes ONNX graphs and a bundle. The one folder where torch lives."""
