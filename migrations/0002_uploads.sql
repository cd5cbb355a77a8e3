-- Uploads and what was decided about them: materialized from uploads.* by the Postgres sink.
-- Every instant is UTC. No schema is named: tests and replays run these in schemas of their own.

create type odometer_uploads_upload_status as enum ('uploaded', 'processing', 'verified', 'rejected', 'failed');
create table odometer_uploads (
    id uuid primary key,
    user_id uuid not null references users (id),
    image_url varchar(500),
    image_hash varchar(64),
    original_filename varchar(255),
    file_size integer,
    mime_type varchar(100),
    image_dimensions jsonb,
    upload_status odometer_uploads_upload_status default 'uploaded' not null,
    created_at timestamptz,
    updated_at timestamptz,
    processed_at timestamptz,
    vehicle_id uuid,
    vehicle_kind text,
    status_rank smallint not null default 0,
    check (file_size > 0),
    check (image_hash ~ '^[0-9a-f]{64}$'),
    check (mime_type in ('image/jpeg', 'image/png', 'image/webp'))
);
create index on odometer_uploads (user_id, created_at);
create index on odometer_uploads (image_hash);
create index on odometer_uploads (upload_status, created_at);

create type mileage_data_mileage_unit as enum ('km', 'miles');
create type mileage_data_verification_status as enum ('pending', 'approved', 'rejected', 'manual_review');
create table mileage_data (
    id uuid primary key,
    upload_id uuid not null references odometer_uploads (id),
    user_claimed_mileage numeric(10,2),
    ai_verified_mileage numeric(10,2),
    final_mileage numeric(10,2),
    mileage_confidence numeric(3,2),
    mileage_unit mileage_data_mileage_unit,
    previous_mileage numeric(10,2),
    distance_traveled numeric(10,2),
    verification_status mileage_data_verification_status default 'pending' not null,
    rejection_reason text,
    manual_review_notes text,
    reviewed_by uuid,
    reviewed_at timestamptz,
    status_rank smallint not null default 0,
    unique (upload_id),
    check (user_claimed_mileage >= 0),
    check (ai_verified_mileage >= 0),
    check (final_mileage >= 0),
    check (previous_mileage >= 0),
    check (distance_traveled >= 0),
    check (mileage_confidence between 0 and 1),
    check ((verification_status = 'approved') = (final_mileage is not null)),
    check ((verification_status = 'rejected') = (rejection_reason is not null))
);
create index on mileage_data (verification_status);
create index on mileage_data (reviewed_by, reviewed_at);

create type upload_verifications_lighting_conditions as enum ('good', 'fair', 'poor');
create table upload_verifications (
    id uuid primary key,
    upload_id uuid not null references odometer_uploads (id),
    ai_service_used varchar(100),
    processing_time integer,
    confidence_score numeric(3,2),
    detected_text text,
    bounding_boxes jsonb,
    image_quality_score numeric(3,2),
    lighting_conditions upload_verifications_lighting_conditions,
    blur_detected boolean,
    glare_detected boolean,
    multiple_readings_detected boolean,
    fallback_used boolean,
    error_details text,
    created_at timestamptz,
    unique (upload_id),
    check (confidence_score between 0 and 1),
    check (image_quality_score between 0 and 1),
    check (processing_time >= 0)
);
create index on upload_verifications (ai_service_used, created_at);
