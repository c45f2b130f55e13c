"""What an installation needs between runs: settling what ended runs left in progress, and removing what nobody needs any more."""
