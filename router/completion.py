"""complete(): one call, in one neutral form, over a fleet whose models may be anybody's."""
