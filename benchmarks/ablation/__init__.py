"""What each option of a training is worth: score and seconds of a step beside the default."""
