# Nothing is kept here that could not be made again. `make destroy` keeps data all the same, unless DELETE_DATA=1.
force_destroy      = true
monthly_budget_usd = 100
