alarm_emails          = []    # who is called
enable_job_log_groups = false # they are one for each account and region, and dev owns them
enable_notebook       = false
monthly_budget_usd    = 500
