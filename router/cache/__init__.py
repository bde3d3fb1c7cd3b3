"""The provider's prompt cache: where breakpoints go, what is warm where, when a prefix comes back."""
