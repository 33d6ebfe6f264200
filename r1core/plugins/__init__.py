"""Discovery, allow-list, loading, attribution of errors and the plugin lock. Imports no torch and no plugin."""
