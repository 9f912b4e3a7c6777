"""Lambda functions: execution environments, versions, queues, URLs and logs."""
