"""Labels for a user's own traffic: from outcomes and feedback, or from models that are asked."""
