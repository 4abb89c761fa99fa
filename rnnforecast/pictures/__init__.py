"""What a forecast looks like: pictures, one HTML file. Knows numpy; matplotlib where it draws."""
