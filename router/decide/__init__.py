"""Which tier a request goes to: the task in a body, rules, call options, what each model can take, the policy."""
