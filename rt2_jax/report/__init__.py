"""The pages, plots and tables that people read: report.json, report.html and the terminal's."""
