"""How good an artifact is: measures, learning curve, model card, the gate."""
