alarm_emails       = [] # who is called; until somebody is, each plan warns
enable_notebook    = false
monthly_budget_usd = 500
