locals {
  # Statement ids take letters, digits, hyphens and underscores only.
  invokers  = { for arn in var.invoker_arns : substr(sha256(arn), 0, 12) => arn }
  is_public = try(var.function_url.auth == "NONE", false)
}

resource "aws_lambda_permission" "invoke" {
  for_each = local.invokers

  statement_id  = "invoke-${each.key}"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_alias.this.function_name
  qualifier     = aws_lambda_alias.this.name
  principal     = each.value
}

# Since October 2025 a function URL asks for this right and for lambda:InvokeFunction.
resource "aws_lambda_permission" "invoke_url" {
  for_each = var.function_url == null || local.is_public ? {} : local.invokers

  statement_id           = "invoke-url-${each.key}"
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = aws_lambda_alias.this.function_name
  qualifier              = aws_lambda_alias.this.name
  principal              = each.value
  function_url_auth_type = "AWS_IAM"
}

# The second right, to invoke the function by its URL, has a condition that the provider knows since 6.29 only: from then on
# it adds it by itself when it makes a public URL; terraform/cli/function.py does so for all versions, and removes it.
# The provider adds a statement of this very id when it makes a public URL, and never removes it. Made here first, it is ours to remove.
resource "aws_lambda_permission" "public_url" {
  #checkov:skip=CKV_AWS_301:Made only where function_url.auth is "NONE", the caller's explicit choice.
  count = local.is_public ? 1 : 0

  statement_id           = "FunctionURLAllowPublicAccess"
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = aws_lambda_alias.this.function_name
  qualifier              = aws_lambda_alias.this.name
  principal              = "*"
  function_url_auth_type = "NONE"
}

resource "aws_lambda_function_url" "this" {
  #checkov:skip=CKV_AWS_258:AWS_IAM is the default; "NONE" is the caller's explicit choice.
  count = var.function_url == null ? 0 : 1

  function_name      = aws_lambda_alias.this.function_name
  qualifier          = aws_lambda_alias.this.name
  authorization_type = var.function_url.auth

  dynamic "cors" {
    for_each = var.function_url.cors[*]

    content {
      allow_headers = cors.value.allow_headers
      allow_methods = ["POST"]
      allow_origins = cors.value.allow_origins
      max_age       = cors.value.max_age_s
    }
  }

  depends_on = [aws_lambda_permission.public_url]
}
