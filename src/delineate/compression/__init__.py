"""Smaller and faster networks, admitted only where they proved themselves."""
