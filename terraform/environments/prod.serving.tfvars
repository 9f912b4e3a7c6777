# A tenth of the new instances takes the new model first, at least one: of two that is half of the requests. The alarms decide.
data_capture_percent = 1
release              = { strategy = "canary" }
scaling              = { min_capacity = 2, max_capacity = 8 }
