"""One thin file a Lambda function: translate in, one call, translate out."""
