"""DynamoDB as Sked's store."""
