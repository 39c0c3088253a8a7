"""Rotates a secret of Secrets Manager as its Lambda function, at a site on Orchard Core 4.0.

Needs: POS_URL, as in https://pos.example.com/; POS_ADMINISTRATOR, a reference to the credentials of an application that
       may save others; a role with rotation_lambda.json, a time-out of 5 min, and a package of this file and the
       library; boto3 is in the runtime:

    pip install --target package --only-binary=:all: --platform manylinux2014_x86_64 --python-version 3.13 secretsource
    cp rotation_lambda.py package/ && (cd package && zip -qr ../rotation.zip .)
    aws lambda create-function --function-name rotate-pos --runtime python3.13 --timeout 300 --zip-file fileb://rotation.zip
        --handler rotation_lambda.lambda_handler --role ROLE_ARN --environment Variables={POS_URL=…,POS_ADMINISTRATOR=…}
    aws lambda add-permission --function-name rotate-pos --statement-id secrets-manager --action lambda:InvokeFunction
        --principal secretsmanager.amazonaws.com --source-account ACCOUNT
    aws secretsmanager rotate-secret --secret-id prod/pos --rotation-lambda-arn FUNCTION_ARN
        --rotation-rules '{"ScheduleExpression": "rate(30 days)"}'

Without a file of your own the handler is secretsource.rotation.aws_lambda.lambda_handler, and the function's variables
say the rest. In a VPC it needs ways to the site and to Secrets Manager; POS_AWS_ENDPOINT, if that is an endpoint there.
"""

import os

from secretsource.backends.aws import AwsBackend
from secretsource.rotation.aws_lambda import rotation_function
from secretsource.rotation.issuers.orchard import Orchard

site = os.environ["POS_URL"]
aws = AwsBackend(endpoint_url=os.environ.get("POS_AWS_ENDPOINT"))
orchard = Orchard(site, admin={"credentials": os.environ["POS_ADMINISTRATOR"]}, stores={"aws": aws})
lambda_handler = rotation_function(orchard, issuer=site, backend=aws)
