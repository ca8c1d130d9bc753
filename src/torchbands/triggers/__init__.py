"""What can be written on a sample, one file per modality. Modalities, attacks and inversion all speak in these."""
