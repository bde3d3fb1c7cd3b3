"""Labels or outcomes -> an operating point that meets a target with a stated confidence."""
