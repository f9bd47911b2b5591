"""An outside connector for the tests: it makes its files up, and misbehaves as its config says."""
