# A new account may run 10 Lambda functions at a time, of which 10 must stay unreserved: then set
# lambda = { provisioned_concurrency = { executions = 0 } } until AWS has raised the quota.
release = { strategy = "all_at_once" }
