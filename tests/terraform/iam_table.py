"""Who may do what: each row is an action, its resource and what the request says besides.

Every request comes over TLS and to us-east-1, unless its row says otherwise.
"""

ACCOUNT = "123456789012"
BUCKET = f"arn:aws:s3:::kennel-dev-{ACCOUNT}-us-east-1"
PROD_BUCKET = f"arn:aws:s3:::kennel-prod-{ACCOUNT}-us-east-1"
STATE = f"arn:aws:s3:::kennel-tfstate-{ACCOUNT}-us-east-1"
BOUNDARY = f"arn:aws:iam::{ACCOUNT}:policy/kennel-boundary"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/0a1b2c3d-0000-1111-2222-333344445555"


def arn(service: str, resource: str, account: str = ACCOUNT, region: str = "us-east-1") -> str:
    return f"arn:aws:{service}:{region}:{account}:{resource}"


def role(name: str) -> str:
    return arn("iam", f"role/kennel-dev-{name}", region="")


ENDPOINT = arn("sagemaker", "endpoint/kennel-dev")
FUNCTION = arn("lambda", "function:kennel-dev-classify")
IMAGE = arn("ecr", "repository/kennel-dev-serving")
TRAINING_IMAGE = arn("ecr", "repository/pytorch-training", account="763104351884")
QUEUE = arn("sqs", "kennel-dev-classify-failed")
TRAINER = {"aws:ResourceTag/Name": "kennel-dev-trainer"}
BY_S3 = {"kms:ViaService": "s3.us-east-1.amazonaws.com"}
BY_EC2 = {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}
FROM_TEMPLATE = {"ec2:LaunchTemplate": arn("ec2", "launch-template/lt-1")}
AS_TRAINER = {**FROM_TEMPLATE, "aws:RequestTag/Name": "kennel-dev-trainer"}
ITS_TYPE = {"ec2:InstanceType": "g5.xlarge"}
AT_LAUNCH = {"ec2:CreateAction": "RunInstances", "aws:RequestTag/Name": "kennel-dev-trainer"}
TO_SAGEMAKER = {"iam:PassedToService": "sagemaker.amazonaws.com"}
TO_LAMBDA = {"iam:PassedToService": "lambda.amazonaws.com"}
TO_EC2 = {"iam:PassedToService": "ec2.amazonaws.com"}


def log_stream(group: str, stream: str = "one") -> str:
    return arn("logs", f"log-group:{group}:log-stream:{stream}")


Row = tuple[str, str] | tuple[str, str, dict[str, str]]

# What everybody may who starts trainings, what who operates may besides, and what none of them may.
TRAIN: list[Row] = [
    ("sagemaker:CreateTrainingJob", arn("sagemaker", "training-job/kennel-dev-1")),
    ("sagemaker:AddTags", arn("sagemaker", "training-job/kennel-dev-1")),
    (
        "sagemaker:CreateHyperParameterTuningJob",
        arn("sagemaker", "hyper-parameter-tuning-job/kennel-dev-tune-1"),
    ),
    ("sagemaker:ListTrainingJobs", "*"),
    ("iam:PassRole", role("training"), TO_SAGEMAKER),
    ("iam:SimulatePrincipalPolicy", role("training")),
    ("ssm:GetParameter", arn("ssm", "parameter/kennel/dev/bucket")),
    ("logs:GetLogEvents", log_stream("/aws/sagemaker/TrainingJobs", "kennel-dev-1/algo-1")),
    ("logs:GetLogEvents", log_stream("/kennel-dev/ec2-trainer", "kennel-dev-1")),
    ("ec2:DescribeLaunchTemplateVersions", "*"),
    ("ec2:RunInstances", arn("ec2", "launch-template/lt-1"), TRAINER),
    ("ec2:RunInstances", arn("ec2", "instance/i-1"), {**AS_TRAINER, **ITS_TYPE}),
    ("ec2:RunInstances", arn("ec2", "volume/vol-1"), AS_TRAINER),
    ("ec2:RunInstances", arn("ec2", "subnet/subnet-1"), FROM_TEMPLATE),
    ("ec2:CreateTags", arn("ec2", "instance/i-1"), AT_LAUNCH),
    ("ec2:TerminateInstances", arn("ec2", "instance/i-1"), TRAINER),
    ("iam:PassRole", role("ec2"), TO_EC2),
    # The volume of the EC2 trainer, under a key of one's own.
    ("kms:GenerateDataKeyWithoutPlaintext", KEY, BY_EC2),
    ("kms:ReEncryptFrom", KEY, BY_EC2),
    ("kms:ReEncryptTo", KEY, BY_EC2),
    ("kms:CreateGrant", KEY, {**BY_EC2, "kms:GrantIsForAWSResource": "true"}),
]
OPERATE: list[Row] = [
    *TRAIN,
    ("s3:PutObject", f"{BUCKET}/data/dogs/train/beagle/1.jpg"),
    ("s3:PutObject", f"{BUCKET}/models/0123456789ab/model.tar.gz"),
    ("s3:GetObject", f"{STATE}/dev/serving.tfstate"),
    ("sagemaker:CreateModelPackage", arn("sagemaker", "model-package/kennel-dev/1")),
    ("sagemaker:DescribeEndpoint", ENDPOINT),
    (
        "sagemaker:DescribeEndpointConfig",
        arn("sagemaker", "endpoint-config/kennel-dev-0123456789ab"),
    ),
    ("sagemaker:DescribeModel", arn("sagemaker", "model/kennel-dev-0123456789ab")),
    ("sagemaker:DescribeNotebookInstance", arn("sagemaker", "notebook-instance/kennel-dev")),
    ("sagemaker:DescribeProcessingJob", arn("sagemaker", "processing-job/kennel-dev-1")),
    ("sagemaker:ListProcessingJobs", "*"),
    ("sagemaker:ListModelPackages", "*"),
    ("ce:ListCostAllocationTags", "*"),
    ("ssm:GetParameter", "arn:aws:ssm:us-east-1::parameter/aws/service/deeplearning/ami/x86_64/a"),
    ("sagemaker:ListModelPackages", arn("sagemaker", "model-package-group/kennel-dev")),
    ("lambda:GetAlias", FUNCTION),
    ("lambda:GetFunctionConfiguration", f"{FUNCTION}:live"),
    ("lambda:GetProvisionedConcurrencyConfig", f"{FUNCTION}:live"),
    ("lambda:InvokeFunction", f"{FUNCTION}:live"),
    ("logs:FilterLogEvents", arn("logs", "log-group:/aws/lambda/kennel-dev-classify:*")),
    ("codebuild:StartBuild", arn("codebuild", "project/kennel-dev-image")),
    ("ecr:BatchDeleteImage", IMAGE),
    ("ecr:PutImage", IMAGE),
    ("kms:Decrypt", KEY, BY_S3),
]
NOT_TRAIN: list[Row] = [
    ("sagemaker:CreateTrainingJob", arn("sagemaker", "training-job/other-1")),
    ("iam:PassRole", role("training"), TO_LAMBDA),
    ("iam:PassRole", role("training"), TO_EC2),
    ("iam:PassRole", role("deploy"), TO_EC2),
    ("iam:PassRole", role("deploy"), TO_SAGEMAKER),
    ("iam:PassRole", arn("iam", "role/Administrator", region=""), TO_EC2),
    # A machine comes from the trainer's template, with its name, or not at all.
    ("ec2:RunInstances", arn("ec2", "launch-template/lt-2"), FROM_TEMPLATE),
    ("ec2:RunInstances", arn("ec2", "instance/i-1")),
    ("ec2:RunInstances", arn("ec2", "subnet/subnet-1")),
    ("ec2:RunInstances", arn("ec2", "instance/i-1"), {**FROM_TEMPLATE, **ITS_TYPE}),
    (
        "ec2:RunInstances",
        arn("ec2", "instance/i-1"),
        {**FROM_TEMPLATE, **ITS_TYPE, "aws:RequestTag/Name": "kennel-prod-trainer"},
    ),
    # Of one type, whatever the launch says in place of the template.
    (
        "ec2:RunInstances",
        arn("ec2", "instance/i-1"),
        {**AS_TRAINER, "ec2:InstanceType": "p5.48xlarge"},
    ),
    ("ec2:RunInstances", arn("ec2", "instance/i-1"), AS_TRAINER),
    ("ec2:CreateTags", arn("ec2", "instance/i-1")),
    ("ec2:CreateTags", arn("ec2", "launch-template/lt-2"), AT_LAUNCH),
    ("ec2:TerminateInstances", arn("ec2", "instance/i-1")),
    ("ec2:DescribeInstances", "*", {"aws:RequestedRegion": "eu-west-1"}),
    ("ssm:GetParameter", arn("ssm", "parameter/kennel/prod/bucket")),
    ("kms:ReEncryptTo", KEY, BY_S3),
]

ALLOWED: dict[str, list[Row]] = {
    "training": [
        ("s3:ListBucket", BUCKET, {"s3:prefix": "data/dogs"}),
        ("s3:GetObject", f"{BUCKET}/data/dogs/train/beagle/1.jpg"),
        ("s3:GetObject", f"{BUCKET}/source/trainer.tar.gz"),
        ("s3:GetObject", f"{BUCKET}/models/0123456789ab/model.tar.gz"),
        ("s3:GetObject", f"{BUCKET}/checkpoints/kennel-dev-1/last.pt"),
        ("s3:PutObject", f"{BUCKET}/checkpoints/kennel-dev-1/last.pt"),
        ("s3:PutObject", f"{BUCKET}/jobs/kennel-dev-1/output/model.tar.gz"),
        ("logs:CreateLogStream", log_stream("/aws/sagemaker/TrainingJobs")),
        ("logs:PutLogEvents", log_stream("/aws/sagemaker/TrainingJobs")),
        ("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "/aws/sagemaker/TrainingJobs"}),
        ("ecr:GetAuthorizationToken", "*"),
        ("ecr:BatchGetImage", TRAINING_IMAGE),
        ("kms:Decrypt", KEY, BY_S3),
        ("kms:CreateGrant", KEY, {"kms:GrantIsForAWSResource": "true"}),
        ("kms:Encrypt", KEY),
        ("kms:GenerateDataKey", KEY, BY_S3),
        ("ec2:CreateNetworkInterface", arn("ec2", "subnet/subnet-1")),
    ],
    "serving": [
        ("s3:GetObject", f"{BUCKET}/models/0123456789ab/model.tar.gz"),
        ("s3:PutObject", f"{BUCKET}/capture/kennel-dev/main/1.jsonl"),
        ("ecr:GetDownloadUrlForLayer", IMAGE),
        ("cloudwatch:DescribeAlarms", arn("cloudwatch", "alarm:kennel-dev-rollback-5xx")),
        ("logs:PutLogEvents", log_stream("/aws/sagemaker/Endpoints/kennel-dev")),
        ("kms:GenerateDataKey", KEY, BY_S3),
    ],
    "notebook": [
        *TRAIN,
        ("s3:PutObject", f"{BUCKET}/data/dogs/train/beagle/1.jpg"),
        ("s3:PutObject", f"{BUCKET}/source/trainer.tar.gz"),
        ("s3:GetObject", f"{BUCKET}/jobs/kennel-dev-1/output/model.tar.gz"),
        ("sagemaker:StopNotebookInstance", arn("sagemaker", "notebook-instance/kennel-dev")),
        ("sagemaker:InvokeEndpoint", ENDPOINT),
    ],
    "operate": OPERATE,
    "ec2": [
        ("s3:GetObject", f"{BUCKET}/jobs/kennel-dev-1/request.json"),
        ("s3:GetObject", f"{BUCKET}/source/trainer.tar.gz"),
        ("s3:ListBucket", BUCKET, {"s3:prefix": "data/dogs/"}),
        ("s3:PutObject", f"{BUCKET}/jobs/kennel-dev-1/status.json"),
        ("s3:PutObject", f"{BUCKET}/checkpoints/kennel-dev-1/run/last.pt"),
        ("s3:PutObject", f"{BUCKET}/logs/ec2/kennel-dev-1.log"),
        ("logs:CreateLogStream", log_stream("/kennel-dev/ec2-trainer", "kennel-dev-1")),
        ("logs:PutLogEvents", log_stream("/kennel-dev/ec2-trainer", "kennel-dev-1")),
        ("ssm:UpdateInstanceInformation", arn("ec2", "instance/i-1")),
        (
            "ssmmessages:OpenControlChannel",
            "*",
            {"ec2:SourceInstanceARN": arn("ec2", "instance/i-1")},
        ),
    ],
    "lambda": [
        ("sagemaker:InvokeEndpoint", ENDPOINT),
        ("logs:CreateLogStream", log_stream("/aws/lambda/kennel-dev-classify")),
        ("logs:PutLogEvents", log_stream("/aws/lambda/kennel-dev-classify")),
        ("xray:PutTraceSegments", "*"),
        ("sqs:SendMessage", QUEUE),
    ],
    "deploy": [
        # State
        ("s3:ListBucket", STATE),
        ("s3:GetObject", f"{STATE}/dev/serving.tfstate"),
        ("s3:PutObject", f"{STATE}/dev/serving.tfstate"),
        ("s3:PutObject", f"{STATE}/dev/serving.tfstate.tflock"),
        ("s3:DeleteObject", f"{STATE}/dev/serving.tfstate.tflock"),
        # Foundation
        ("s3:CreateBucket", BUCKET),
        ("s3:PutBucketPolicy", BUCKET),
        ("s3:DeleteObjectVersion", f"{BUCKET}/data/dogs/1.jpg"),
        ("s3:DeleteBucket", BUCKET),
        ("ecr:CreateRepository", IMAGE),
        ("codebuild:CreateProject", arn("codebuild", "project/kennel-dev-image")),
        ("iam:CreateRole", role("training"), {"iam:PermissionsBoundary": BOUNDARY}),
        ("iam:PutRolePolicy", role("lambda"), {"iam:PermissionsBoundary": BOUNDARY}),
        ("iam:DeleteRole", role("image-build")),
        (
            "iam:AddRoleToInstanceProfile",
            arn("iam", "instance-profile/kennel-dev-ec2", region=""),
        ),
        ("iam:GetRole", role("deploy")),
        ("iam:PassRole", role("training"), TO_SAGEMAKER),
        ("iam:PassRole", role("serving"), TO_SAGEMAKER),
        ("iam:PassRole", role("notebook"), TO_SAGEMAKER),
        ("iam:PassRole", role("lambda"), TO_LAMBDA),
        ("iam:PassRole", role("ec2"), TO_EC2),
        (
            "iam:PassRole",
            role("image-build"),
            {"iam:PassedToService": "codebuild.amazonaws.com"},
        ),
        (
            "sagemaker:CreateNotebookInstance",
            arn("sagemaker", "notebook-instance/kennel-dev"),
        ),
        (
            "ec2:CreateLaunchTemplate",
            arn("ec2", "launch-template/lt-1"),
            {"aws:RequestTag/Name": "kennel-dev-trainer"},
        ),
        ("ec2:DeleteLaunchTemplate", arn("ec2", "launch-template/lt-1"), TRAINER),
        (
            "ec2:CreateTags",
            arn("ec2", "launch-template/lt-1"),
            {"ec2:CreateAction": "CreateLaunchTemplate"},
        ),
        ("ec2:DescribeSubnets", "*"),
        ("ec2:DescribeRegions", "*"),
        (
            "ssm:GetParameter",
            arn("ssm", "parameter/aws/service/deeplearning/ami/x86_64/x/latest/ami-id", account=""),
        ),
        ("ssm:PutParameter", arn("ssm", "parameter/kennel/dev/bucket")),
        ("sns:CreateTopic", arn("sns", "kennel-dev-alarms")),
        ("budgets:ModifyBudget", arn("budgets", "budget/kennel-dev", region="")),
        ("kms:CreateGrant", KEY, {"kms:GrantIsForAWSResource": "true"}),
        # Serving
        ("sagemaker:CreateModel", arn("sagemaker", "model/kennel-dev-0123456789ab")),
        (
            "sagemaker:CreateEndpointConfig",
            arn("sagemaker", "endpoint-config/kennel-dev-0123456789ab"),
        ),
        ("sagemaker:UpdateEndpoint", ENDPOINT),
        (
            "sagemaker:UpdateEndpoint",
            arn("sagemaker", "endpoint-config/kennel-dev-0123456789ab"),
        ),
        (
            "application-autoscaling:DeregisterScalableTarget",
            arn("application-autoscaling", "scalable-target/1a2b"),
            {"application-autoscaling:service-namespace": "sagemaker"},
        ),
        (
            "iam:CreateServiceLinkedRole",
            arn(
                "iam",
                "role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
                "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
                region="",
            ),
            {"iam:AWSServiceName": "sagemaker.application-autoscaling.amazonaws.com"},
        ),
        ("lambda:CreateFunction", FUNCTION),
        ("lambda:PutProvisionedConcurrencyConfig", f"{FUNCTION}:live"),
        ("sqs:CreateQueue", QUEUE),
        ("logs:CreateLogGroup", arn("logs", "log-group:/aws/lambda/kennel-dev-classify")),
        ("cloudwatch:PutMetricAlarm", arn("cloudwatch", "alarm:kennel-dev-rollback-5xx")),
        ("cloudwatch:PutCompositeAlarm", "*"),
        ("cloudwatch:PutDashboard", arn("cloudwatch", "dashboard/kennel-dev", region="")),
        # Commands
        *OPERATE,
        ("servicequotas:GetServiceQuota", arn("servicequotas", "sagemaker/L-1")),
    ],
}

DENIED: dict[str, list[Row]] = {
    "training": [
        ("s3:GetObject", f"{BUCKET}/data/dogs/1.jpg", {"aws:SecureTransport": "false"}),
        ("s3:GetObject", f"{PROD_BUCKET}/data/dogs/1.jpg"),
        ("s3:GetObject", f"{BUCKET}/capture/kennel-dev/main/1.jsonl"),
        ("s3:ListBucket", BUCKET, {"s3:prefix": "capture/"}),
        ("s3:ListBucket", BUCKET),
        ("s3:PutObject", f"{BUCKET}/data/dogs/1.jpg"),
        ("s3:PutObject", f"{BUCKET}/models/0123456789ab/model.tar.gz"),
        ("s3:DeleteObject", f"{BUCKET}/checkpoints/kennel-dev-1/last.pt"),
        ("logs:CreateLogGroup", arn("logs", "log-group:/aws/sagemaker/TrainingJobs")),
        ("logs:PutLogEvents", log_stream("/aws/sagemaker/Endpoints/kennel-dev")),
        ("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/Lambda"}),
        ("ecr:BatchGetImage", arn("ecr", "repository/other")),
        ("ecr:PutImage", TRAINING_IMAGE),
        ("iam:PassRole", role("training"), TO_SAGEMAKER),
        ("sagemaker:CreateTrainingJob", arn("sagemaker", "training-job/kennel-dev-2")),
        ("kms:Decrypt", KEY, {"kms:ViaService": "secretsmanager.us-east-1.amazonaws.com"}),
        ("kms:CreateGrant", KEY),
    ],
    "serving": [
        ("s3:GetObject", f"{BUCKET}/data/dogs/1.jpg"),
        ("s3:ListBucket", BUCKET, {"s3:prefix": "models/"}),
        ("s3:PutObject", f"{BUCKET}/models/0123456789ab/model.tar.gz"),
        ("s3:GetObject", f"{BUCKET}/capture/kennel-dev/main/1.jsonl"),
        ("ecr:BatchGetImage", TRAINING_IMAGE),
        ("cloudwatch:DescribeAlarms", arn("cloudwatch", "alarm:billing")),
        ("logs:PutLogEvents", log_stream("/aws/sagemaker/Endpoints/kennel-prod")),
        ("sagemaker:InvokeEndpoint", ENDPOINT),
    ],
    "operate": [
        *NOT_TRAIN,
        ("s3:GetObject", f"{PROD_BUCKET}/data/dogs/1.jpg"),
        ("s3:GetObject", f"{STATE}/dev/foundation.tfstate"),
        ("s3:GetObject", f"{STATE}/prod/serving.tfstate"),
        ("s3:PutObject", f"{STATE}/dev/serving.tfstate"),
        ("sagemaker:DeleteEndpoint", ENDPOINT),
        ("sagemaker:DescribeEndpoint", arn("sagemaker", "endpoint/kennel-prod")),
        ("sagemaker:DescribeModel", arn("sagemaker", "model/kennel-prod-0123456789ab")),
        ("sagemaker:UpdateEndpoint", ENDPOINT),
        ("lambda:InvokeFunction", FUNCTION),
        ("lambda:UpdateAlias", FUNCTION),
        ("lambda:GetFunction", FUNCTION),
        ("ec2:CreateLaunchTemplateVersion", arn("ec2", "launch-template/lt-1"), TRAINER),
        ("iam:PassRole", role("serving"), TO_SAGEMAKER),
        ("iam:PutRolePolicy", role("training"), {"iam:PermissionsBoundary": BOUNDARY}),
    ],
    "notebook": [
        *NOT_TRAIN,
        ("iam:PassRole", role("serving"), TO_SAGEMAKER),
        ("s3:PutObject", f"{BUCKET}/models/0123456789ab/model.tar.gz"),
        ("s3:DeleteObject", f"{BUCKET}/data/dogs/1.jpg"),
        ("s3:GetObject", f"{STATE}/dev/serving.tfstate"),
        ("sagemaker:DeleteEndpoint", ENDPOINT),
        ("sagemaker:InvokeEndpoint", arn("sagemaker", "endpoint/kennel-prod")),
        ("sagemaker:StopNotebookInstance", arn("sagemaker", "notebook-instance/other")),
        (
            "sagemaker:CreatePresignedNotebookInstanceUrl",
            arn("sagemaker", "notebook-instance/kennel-dev"),
        ),
        ("ssm:PutParameter", arn("ssm", "parameter/kennel/dev/bucket")),
        ("logs:GetLogEvents", log_stream("/aws/sagemaker/TrainingJobs", "other-1/algo-1")),
    ],
    "ec2": [
        ("s3:GetObject", f"{PROD_BUCKET}/data/dogs/1.jpg"),
        ("s3:PutObject", f"{BUCKET}/models/0123456789ab/model.tar.gz"),
        ("s3:PutObject", f"{BUCKET}/source/trainer.tar.gz"),
        ("s3:DeleteObject", f"{BUCKET}/checkpoints/kennel-dev-1/run/last.pt"),
        ("ssm:GetParameter", arn("ssm", "parameter/kennel/dev/bucket")),
        ("ssmmessages:OpenControlChannel", "*"),
        ("ec2:TerminateInstances", arn("ec2", "instance/i-1"), TRAINER),
        ("iam:PassRole", role("ec2"), TO_EC2),
        ("logs:CreateLogGroup", arn("logs", "log-group:/kennel-dev/ec2-trainer")),
    ],
    "lambda": [
        ("sagemaker:InvokeEndpoint", arn("sagemaker", "endpoint/kennel-prod")),
        ("sagemaker:InvokeEndpoint", arn("sagemaker", "endpoint/kennel-dev-2")),
        ("sagemaker:InvokeEndpoint", arn("sagemaker", "endpoint/kennel-dev", account="9" * 12)),
        ("sagemaker:DescribeEndpoint", ENDPOINT),
        ("logs:CreateLogGroup", arn("logs", "log-group:/aws/lambda/kennel-dev-classify")),
        ("logs:PutLogEvents", log_stream("/aws/lambda/other")),
        ("sqs:ReceiveMessage", QUEUE),
        ("sqs:SendMessage", arn("sqs", "other")),
        ("s3:GetObject", f"{BUCKET}/models/0123456789ab/model.tar.gz"),
        ("lambda:InvokeFunction", FUNCTION),
        ("xray:PutTraceSegments", "*", {"aws:RequestedRegion": "eu-west-1"}),
    ],
    "deploy": [
        # It cannot raise its own rights.
        ("iam:PutRolePolicy", role("deploy"), {"iam:PermissionsBoundary": BOUNDARY}),
        ("iam:AttachRolePolicy", role("deploy"), {"iam:PermissionsBoundary": BOUNDARY}),
        ("iam:AttachRolePolicy", role("training"), {"iam:PermissionsBoundary": BOUNDARY}),
        ("iam:UpdateAssumeRolePolicy", role("deploy")),
        (
            "iam:CreatePolicyVersion",
            arn("iam", "policy/kennel-dev-deploy-iam", region=""),
        ),
        ("iam:CreatePolicyVersion", BOUNDARY),
        ("iam:DeleteRolePermissionsBoundary", role("training")),
        ("iam:CreateRole", role("training")),
        (
            "iam:CreateRole",
            role("training"),
            {"iam:PermissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess"},
        ),
        ("iam:PutRolePolicy", role("lambda")),
        ("iam:CreateRole", role("helper"), {"iam:PermissionsBoundary": BOUNDARY}),
        ("iam:CreateUser", arn("iam", "user/ann", region="")),
        (
            "iam:UpdateOpenIDConnectProviderThumbprint",
            arn("iam", "oidc-provider/token.actions.githubusercontent.com", region=""),
        ),
        (
            "iam:CreateServiceLinkedRole",
            arn("iam", "role/aws-service-role/ecs.amazonaws.com/X", region=""),
            {"iam:AWSServiceName": "ecs.amazonaws.com"},
        ),
        ("sts:AssumeRole", arn("iam", "role/Administrator", region="")),
        # It keeps to its project and environment.
        *NOT_TRAIN,
        ("s3:GetObject", f"{STATE}/prod/serving.tfstate"),
        ("s3:DeleteObject", f"{STATE}/dev/serving.tfstate"),
        ("s3:PutBucketPolicy", STATE),
        ("s3:PutBucketPolicy", PROD_BUCKET),
        ("s3:GetObject", f"{PROD_BUCKET}/data/dogs/1.jpg"),
        ("s3:PutObject", f"{BUCKET}/data/dogs/1.jpg", {"aws:SecureTransport": "false"}),
        ("s3:PutObject", f"{BUCKET}/capture/kennel-dev/main/1.jsonl"),
        ("sagemaker:DeleteEndpoint", arn("sagemaker", "endpoint/kennel-prod")),
        ("lambda:InvokeFunction", arn("lambda", "function:other")),
        ("lambda:UpdateFunctionCode", arn("lambda", "function:other")),
        ("ssm:PutParameter", arn("ssm", "parameter/kennel/prod/bucket")),
        ("ssm:GetParameter", arn("ssm", "parameter/other/secret")),
        ("ec2:DeleteSecurityGroup", arn("ec2", "security-group/sg-1")),
        ("cloudwatch:PutMetricAlarm", arn("cloudwatch", "alarm:billing")),
        ("logs:DeleteLogGroup", arn("logs", "log-group:/aws/lambda/other")),
        (
            "application-autoscaling:RegisterScalableTarget",
            arn("application-autoscaling", "scalable-target/1a2b"),
            {"application-autoscaling:service-namespace": "dynamodb"},
        ),
        ("kms:ScheduleKeyDeletion", KEY),
        ("ecr:DeleteRepository", arn("ecr", "repository/other")),
    ],
}
