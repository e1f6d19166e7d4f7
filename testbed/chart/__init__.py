"""The Helm chart's parts that are made from code: admission, the schema of the values, and their reference."""
