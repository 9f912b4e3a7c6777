# Nothing is kept here that could not be made again.
force_destroy      = true
monthly_budget_usd = 100
