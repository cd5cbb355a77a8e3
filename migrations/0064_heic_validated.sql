-- Reads the table once, while others read and write it.
alter table odometer_uploads validate constraint odometer_uploads_mime_type_check;
