"""The ledger's migrations, run at each opening. They only ever go up."""
