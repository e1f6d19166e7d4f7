"""Parts of the Helm chart that are made from code: admission, the schema of the values, their reference."""
