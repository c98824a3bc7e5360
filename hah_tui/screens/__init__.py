"""The screens of hah-tui. A screen's keys come from hah_tui.keys, what it asks of the app from hah_tui.base."""
